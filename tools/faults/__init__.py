"""Everything that can fail around an app, one after the other, and what each costs.

registry.py names the faults; rig.py runs the real stack that they happen to; load.py asks and keeps the book, in a
process of its own; play.py lets one fault happen under load; evidence.py counts what became of it.
"""
