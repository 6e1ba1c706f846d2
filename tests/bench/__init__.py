"""Our ways of doing things against the best known other ones, both measured in one interleaved run.

`python -m tests.bench` runs everything; `tests/bench/requirements.txt` names what the other ways need. Each round runs
every arm once in a new order, so that whatever else the machine does meets all of them alike; what is quoted is the
median over the rounds of the ratio inside each. Our arm runs twice a round: where it differs from itself by more than
5 %, the machine was too busy to tell, and the row says so. Linux only: what other processes use is read from /proc.
"""
