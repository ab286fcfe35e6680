"""The worker's real runner under everything that may happen to a thread, by seed: a model of people, workers that die, versions, timers.

After how many plays of 90 steps a fault is found where a rule is taken out (tests/mutants/model.py; the plays count from seed 0):
rule 1: 4 to 14; rule 2: 2 and 9; rule 3 (what waited already; a card that asks leaves with its wait): 9, 972; rule 4 (an answer finds room): 27; rule 5: 2;
rule 6 (it begins on the disk): 363; rule 7: 3 and 9; rule 8 (a Stop survives its worker; how a block ended is noted; what is said behind it): 118, 52, 52;
rule 9: 4, 9 and 55; rule 10 (a handler that is gone): 71; rule 11: 5, 9, 9, 27, 144, 898; rule 12: 13, 13, 272; rule 13 (the hash): 328;
rule 16 (what a thread sees of the history; what it says there): 9, 2; rule 17 (revisions): 4.

It does not find, in 1,200 plays: that a Stop which comes behind the end of its block changes nothing (8), in 150: that an answer in time counts after its deadline (2),
that nothing interrupts an answer (3), and that no stop cancels what may be done once (6): each has a guard behind its guard, and tests of its own. It does not look at rules
14, 15 and at what of 12 is about days, which have tests of their own.
"""
