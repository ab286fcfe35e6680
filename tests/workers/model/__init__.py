"""The worker's real runner under everything that may happen to a thread, by seed: a model of people, workers that die, versions, timers.

After how many plays of 90 steps a fault is found where a rule is taken out (tests/mutants/model.py; the plays count from seed 0):
rule 1: 4 to 9; rule 2: 2 and 9; rule 3 (what waited already): 20; rule 5: 2; rule 6 (it begins on the disk): 132; rule 7: 3 and 9; rule 8 (a Stop survives
its worker): 176; rule 9: 8, 9 and 67; rule 10 (a handler that is gone): 127; rule 11: 9, 18, 27, 30, 56 and 189; rule 12: 20; rule 13 (the hash): 88;
rule 17 (revisions): 52.

It does not find, in 150 plays: that an answer in time counts after its deadline (2), that nothing interrupts an answer (3), and that no stop cancels
what may be done once (6): each has a guard behind its guard, and tests of its own. It does not look at rules 4 (mailboxes that are full), 14, 15 and 16 (but
for that what was said is kept once).
"""
