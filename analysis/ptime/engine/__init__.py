"""The pass over a trace, compiled by mypyc: rows, who has each P, and the account of P time."""
