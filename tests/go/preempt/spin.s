// func spin(rounds uint64): counts down, without a call.
TEXT ·spin(SB), 4, $0-8 // 4: NOSPLIT
	MOVQ rounds+0(FP), AX
again:
	DECQ AX
	JNZ again
	RET
