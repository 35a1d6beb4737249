"""The live dashboard of one task: a page, the numbers behind it, and a text's decision explained.

Every number comes from what all workers share (trace store, versions), but for what it says is this worker's.
"""
