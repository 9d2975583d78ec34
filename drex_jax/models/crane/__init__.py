"""CRANE (Dai et al., ACM TOMM, arXiv 2601.11151): the variant of the paper, and the variant of the public code."""
