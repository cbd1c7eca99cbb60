# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""archive.py PACKAGE...: run on a machine that has no network, it puts installed packages together again from their files, into an
archive where apt finds them. So they can be removed, and installed by what a test is about."""

import glob
import hashlib
import os
import shutil
import subprocess
import sys

FOLDER = "/var/tmp/archive"
TREE = FOLDER + "/tree"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "triggers")


def lay_out(package):
    """The package's files and scripts; gives its control data."""
    shutil.rmtree(TREE, ignore_errors=True)
    os.makedirs(TREE + "/DEBIAN")
    for path in subprocess.check_output(["dpkg", "-L", package], text=True).splitlines():
        folder, name = os.path.split(path)
        if path == "/." or folder == "/" or not os.path.lexists(path):
            continue  # /lib and its like are links
        place = os.path.join(TREE + os.path.realpath(folder), name)
        if os.path.isdir(path) and not os.path.islink(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copy2(path, place, follow_symlinks=False)
    for end in SCRIPTS:
        for path in glob.glob(f"/var/lib/dpkg/info/{package}.{end}") + glob.glob(
            f"/var/lib/dpkg/info/{package}:*.{end}"
        ):
            shutil.copy(path, TREE + "/DEBIAN/" + end)
    told = subprocess.check_output(["dpkg-query", "-s", package], text=True)
    control = "".join(line + "\n" for line in told.splitlines() if not line.startswith("Status:"))
    with open(TREE + "/DEBIAN/control", "w") as file:
        file.write(control)
    return control


def main(packages):
    os.makedirs(FOLDER)
    with open(FOLDER + "/Packages", "w") as index:
        for package in packages:
            control, name = lay_out(package), package + ".deb"
            path = os.path.join(FOLDER, name)
            subprocess.check_call(
                ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", TREE, path], stdout=subprocess.DEVNULL
            )
            with open(path, "rb") as file:
                data = file.read()
            index.write(
                f"{control}Filename: ./{name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"
            )
    shutil.rmtree(TREE)
    with open("/etc/apt/sources.list.d/archive.list", "w") as file:
        file.write(f"deb [trusted=yes] file:{FOLDER} ./\n")
    subprocess.check_call(["apt-get", "-q", "update"], stdout=subprocess.DEVNULL)


main(sys.argv[1:])
