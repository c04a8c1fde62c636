"""Reports of certified accuracy: one self-contained HTML page, plots, and tables as text, CSV and LaTeX."""

from dualsmooth.runtime.report.page import html_report
from dualsmooth.runtime.report.plot import plot_curves
from dualsmooth.runtime.report.runs import Run, conditions, load_runs
from dualsmooth.runtime.report.tables import Curves, csv_table, latex_table, markdown_table

__all__ = [
    "Curves",
    "Run",
    "conditions",
    "csv_table",
    "html_report",
    "latex_table",
    "load_runs",
    "markdown_table",
    "plot_curves",
]
