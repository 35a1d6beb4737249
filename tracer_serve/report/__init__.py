"""A version's report: the data as JSON, and one self-contained page drawn from it (docs/report.md).

`build` makes the data, `render` the page. Nothing is imported here: a server that only shows pages loads no `build`.
"""
