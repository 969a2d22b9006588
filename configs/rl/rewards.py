"""Rewards of configs/rl/qwen3-grpo.yaml. A function takes what it names and returns a number for each reply."""


def tagged(replies):
    """A little for an answer in its tags, so that there is something to learn before the numbers are right."""
    return [0.2 * (reply.count("<answer>") == 1) + 0.2 * reply.rstrip().endswith("</answer>") for reply in replies]
