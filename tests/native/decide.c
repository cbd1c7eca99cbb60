/* SPDX-License-Identifier: GPL-3.0-or-later */
/* decide.h as a library of the host, for comparison with the reference. */
#include "core/decide.h"

guard_u64 binding_sets(const struct guard_policy *p, const struct guard_task_sets *w)
{
	return guard_binding_sets(p, w);
}
guard_u64 exempting_sets(const struct guard_policy *p, const struct guard_task_sets *w)
{
	return guard_exempting_sets(p, w);
}
guard_u64 destination_sets(const struct guard_policy *p, guard_u64 a, guard_u64 b, guard_u64 c)
{
	return guard_destination_sets(p, a, b, c);
}
guard_u32 decide(const struct guard_vector *bound, const struct guard_vector *covers,
		 const struct guard_vector *of_action, const struct guard_vector *audit, guard_u32 *rule)
{
	return guard_decide(bound, covers, of_action, audit, rule);
}
guard_u32 lowest(guard_u64 bits)
{
	return guard_lowest(bits);
}
int concerns(const struct guard_vector *a, const struct guard_vector *b)
{
	return guard_concerns(a, b);
}
void moved(struct guard_vector *out, const struct guard_vector *some_old, const struct guard_vector *all_old,
	   const struct guard_vector *some_new, const struct guard_vector *all_new, const struct guard_vector *writing)
{
	guard_moved(out, some_old, all_old, some_new, all_new, writing);
}
void add(struct guard_vector *to, const struct guard_vector *from)
{
	guard_add(to, from);
}
void remove_from(struct guard_vector *to, const struct guard_vector *from)
{
	guard_remove(to, from);
}

#define SIZE(NAME)                                  \
	unsigned size_##NAME(void)                  \
	{                                           \
		return sizeof(struct guard_##NAME); \
	}
/* clang-format off */
SIZE(vector)
SIZE(record)
SIZE(policy)
SIZE(subject)
SIZE(destination)
SIZE(id_key)
SIZE(ipv4_key)
SIZE(ipv6_key)
SIZE(port_key)
SIZE(vsock_key)
SIZE(device_key)
SIZE(label)
SIZE(state)
SIZE(edge_key)
SIZE(bytes)
SIZE(rule)
SIZE(totals)
/* clang-format on */
