"""The pass over a trace: who has each P, and the account of P time. Compiled by mypyc.

It has two halves; the second stays behind the first, which may still change its mind. Each file
imports from those above it only::

    rows      columns of a window, in and out      words    numbers of the schema's words
    tids      threads by number
    moves     what the first half tells the second

    beliefs   where each P is thought to be        looks    what waits in the queues
    owners    first half: what each row says of who has which P

    state     what is kept of a P, a thread, a process
    sums      P time by state, lost P time         holds    from a block with P to its release
    stops     stops of the world                   places   the state of each P
    account   second half: what each row and move means for them

Episodes, the calls that blocked with a P, are a loop of their own::

    noted     what is noted of calls, threads and Ps, and what follows when nothing more can come
    episodes  what each row says of them
"""
