"""Reports of certified accuracy: one self-contained HTML page, plots, and tables as text, CSV and LaTeX."""

from dualsmooth.runtime.report.curves import Curve, conditions, load_curves
from dualsmooth.runtime.report.page import html_report
from dualsmooth.runtime.report.plot import plot_curves
from dualsmooth.runtime.report.tables import csv_table, latex_table, markdown_table, print_accuracy

__all__ = [
    "Curve",
    "conditions",
    "csv_table",
    "html_report",
    "latex_table",
    "load_curves",
    "markdown_table",
    "plot_curves",
    "print_accuracy",
]
