"""Evaluation of any model: frozen and prequential metrics, comparison of runs, the leak report."""
