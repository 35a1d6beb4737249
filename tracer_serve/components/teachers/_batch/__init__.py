"""A teacher behind a batch API: half the price, an answer within a day."""
