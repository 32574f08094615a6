"""Values that must not leave the source: rules that cover them before anybody else sees them.

`covering` says what a rule makes of one value, `columns` and `warp.sources.bson_covering` apply the
rules of a table to its rows, and `source` puts itself between a connector and all who read from it.
Nothing behind that has the values: no destination, quarantine, log, digest or error text.
"""
