# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# A peer for the benchmark: a small profile with globs.
profile bench {
  capability setuid,
  capability setgid,
  network inet,
  network inet6,
  network unix,
  signal,
  /guest/** mrix,
  /lib64/** mr,
  /usr/lib/** r,
  /srv/open/** rw,
  /tmp/** rw,
  /dev/ttyS1 rw,
  /proc/*/status r,
}
