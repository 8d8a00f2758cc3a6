"""The built-in page: what the mesh and each deployment did in the last half hour, as plots.

It needs nothing but this process: the history is in memory, and the page is one document without
anything from elsewhere. For longer times there are the dashboards of `deploy/grafana`.
"""
