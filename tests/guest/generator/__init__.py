# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random programs of a bound task: operations.py has the operations, program.py makes and changes programs, world.py runs one
and looks for what must not happen, main.py is the search in the guest."""
