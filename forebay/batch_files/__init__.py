"""A file of rows through a deployment, and the answers into another: `forebay batch run`."""

from forebay.batch_files.run import BatchFile, BatchRun, Summary

__all__ = ["BatchFile", "BatchRun", "Summary"]
