"""``ftk run CONFIG --rehearse``."""

import click


@click.command()
def rehearse() -> None:
    """To come."""
