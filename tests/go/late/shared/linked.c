/* The library as part of the program, or loaded with it. */
extern void Work(void);

int main(void)
{
	Work();
	return 0;
}
