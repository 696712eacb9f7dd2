"""The accelerator scaling benchmark: one step on 1 to N devices and processes.

``command`` reads the command line, ``grid`` lists the configurations, ``children`` runs each in
processes of its own, ``measure`` and ``collectives`` make its row, ``table`` and ``picture`` show
the rows.
"""
