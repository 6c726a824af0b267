"""Pure rules of the product: no I/O, no clock, no asyncio.

Everything here is a value or a small state machine that is driven from outside, so that every rule
(what may start, what is settled, who may take a lease) can be tested as a table or as a property.
"""
