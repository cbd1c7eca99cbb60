/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The smallest program: what a rule on executing is about. */
int main(void)
{
	return 0;
}
