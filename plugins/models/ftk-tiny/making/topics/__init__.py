"""The topics of the tiny world, each with its share of the corpus."""
