# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Of manual pages, as "PAGE NAME": the other names by which each is found, those of its NAME section.
FNR == 1 {
    page = FILENAME
    sub(/.*\//, "", page)
}
/^\.SH/ { names = $2 == "NAME"; next }
names {
    ends = sub(/ \\- .*/, "")
    gsub(/,/, " ")
    for (i = 1; i <= NF; i++)
        if ($i ".3" != page)
            print page, $i
    if (ends)
        names = 0
}
