"""Python functions as deployments: `forebay.function` and what it needs.

Code travels by source (`sources`, `packaging`), `runner` runs it inside a replica, and `function`
is what the caller holds.
"""
