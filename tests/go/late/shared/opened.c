/* The library loaded while the program runs. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	void *library = dlopen(argv[1], RTLD_NOW);
	void (*work)(void) = library ? (void (*)(void))dlsym(library, "Work") : 0;

	if (argc < 2 || !work) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	work();
	return 0;
}
