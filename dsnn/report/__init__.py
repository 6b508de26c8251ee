"""Reports: self-contained pages over one run or many, from the run directories' files alone."""

from dsnn.report.frontier import write_frontier_report
from dsnn.report.run import write_report
from dsnn.report.runs import write_runs_report

__all__ = ["write_frontier_report", "write_report", "write_runs_report"]
