/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Linked dynamically, so that ld.so can be asked to run it: makes the file that its argument names. */
#include <fcntl.h>

int main(int argc, char **argv)
{
	return argc < 2 || open(argv[1], O_CREAT | O_WRONLY, 0666) < 0;
}
