/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A table of text for people: columns as wide as what is in them, two spaces between, cut to what the terminal has. What a terminal
 * would obey stands escaped, as \xNN. */
#ifndef TABLE_H
#define TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum table_color { TABLE_PLAIN, TABLE_BOLD, TABLE_RED, TABLE_GREEN, TABLE_YELLOW, TABLE_MAGENTA, TABLE_CYAN };

struct table_column {
    const char *title;
    unsigned least; /* it is cut to this where there is no room; 0: never. The first such column is cut last */
};

struct table_cell {
    const char *text;
    enum table_color color;
};

struct table {
    const struct table_column *columns;
    size_t n_columns, n_lines, room;
    char **texts; /* escaped; n_columns a line, the first line are the titles */
    enum table_color *colors;
    bool failed; /* out of memory */
};

void table_begin(struct table *table, const struct table_column *columns, size_t n_columns);
void table_add(struct table *table, const struct table_cell *cells); /* one for each column; copied */

struct table_form {
    unsigned width, height; /* of the terminal; 0: no limit */
    bool color;
    const char *line_end;
};
/* Without color. */
struct table_form table_form_of_stdout(void);
/* False: out of memory. */
bool table_print(const struct table *table, FILE *out, const struct table_form *form);
void table_end(struct table *table);

#endif
