"""The pass over a trace: who has each P, and the account of P time. Compiled by mypyc.

It has two halves. The first finds out which thread has which P, the second adds up P time. The
second half is some time behind the first, because a later row can show that a P changed its thread
earlier. Each file imports only from those above it::

    rows      columns of a window, in and out      words    numbers of the schema's words
    tids      threads by number
    moves     changes of Ps, from the first half to the second

    beliefs   which thread has each P              looks    how many goroutines wait
    owners    first half: from rows to moves

    state     the data of a P, a thread, a process
    sums      P time by state, lost P time         holds    from a block with P to its release
    stops     stop-the-worlds                      places   the state of each P
    account   second half: from rows and moves to P time

Episodes, the calls that blocked with a P, have a loop of their own::

    noted     the data of calls, threads and Ps, and the decision about an episode
    episodes  the loop over the rows
"""
