/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "utf8.h"

#define GAP 2
#define CUT "..." /* stands where text was cut off */

/* ---- text ---- */

static char *escape(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    char *escaped = malloc(4 * strlen(text) + 1), *to = escaped;
    while (escaped && *at) {
        size_t length = fk_utf8_character(at);
        bool plain = length > 0 && !fk_utf8_is_control(at);
        for (size_t i = 0; i < (length ? length : 1); i++, at++) {
            if (plain)
                *to++ = (char)*at;
            else
                to += sprintf(to, "\\x%02x", *at);
        }
    }
    if (escaped)
        *to = '\0';
    return escaped;
}

static unsigned width_of(const char *text)
{
    unsigned width = 0;
    for (const unsigned char *at = (const unsigned char *)text; *at; at += fk_utf8_character(at))
        width += fk_utf8_width(at);
    return width;
}

/* The bytes of text that fit. */
static size_t fitting(const char *text, unsigned width)
{
    const unsigned char *at = (const unsigned char *)text;
    while (*at && fk_utf8_width(at) <= width) {
        width -= fk_utf8_width(at);
        at += fk_utf8_character(at);
    }
    return (size_t)(at - (const unsigned char *)text);
}

/* ---- lines ---- */

static bool make_room(struct table *table)
{
    if (table->n_lines < table->room)
        return true;
    size_t room = table->room ? 2 * table->room : 64;
    char **texts = reallocarray(table->texts, room * table->n_columns, sizeof *texts);
    if (texts)
        table->texts = texts;
    enum table_color *colors = reallocarray(table->colors, room * table->n_columns, sizeof *colors);
    if (colors)
        table->colors = colors;
    if (!texts || !colors)
        return false;
    table->room = room;
    return true;
}

void table_begin(struct table *table, const struct table_column *columns, size_t n_columns)
{
    struct table_cell titles[16];
    *table = (struct table){.columns = columns, .n_columns = n_columns};
    for (size_t i = 0; i < n_columns && i < sizeof titles / sizeof *titles; i++)
        titles[i] = (struct table_cell){columns[i].title, TABLE_BOLD};
    table_add(table, titles);
}

void table_add(struct table *table, const struct table_cell *cells)
{
    if (table->failed || !make_room(table)) {
        table->failed = true;
        return;
    }
    size_t at = table->n_lines++ * table->n_columns;
    for (size_t i = 0; i < table->n_columns; i++) {
        table->texts[at + i] = escape(cells[i].text);
        table->colors[at + i] = cells[i].color;
        table->failed |= !table->texts[at + i];
    }
}

void table_end(struct table *table)
{
    for (size_t i = 0; i < table->n_lines * table->n_columns; i++)
        free(table->texts[i]);
    free(table->texts);
    free(table->colors);
    *table = (struct table){0};
}

/* ---- print ---- */

static unsigned *measure(const struct table *table, unsigned width)
{
    unsigned *widths = calloc(table->n_columns, sizeof *widths), total = 0;
    if (!widths)
        return NULL;
    for (size_t line = 0; line < table->n_lines; line++)
        for (size_t i = 0; i < table->n_columns; i++) {
            unsigned own = width_of(table->texts[line * table->n_columns + i]);
            widths[i] = own > widths[i] ? own : widths[i];
        }
    for (size_t i = 0; i < table->n_columns; i++)
        total += widths[i] + (i ? GAP : 0);
    for (size_t i = table->n_columns; width > 0 && total > width && i-- > 0;) {
        unsigned least = table->columns[i].least, much = total - width;
        if (least == 0 || widths[i] <= least)
            continue;
        much = much < widths[i] - least ? much : widths[i] - least;
        widths[i] -= much;
        total -= much;
    }
    return widths;
}

/* In the order of the enum. */
static const char *const escapes[] = {"", "\033[1m", "\033[31m", "\033[32m", "\033[33m", "\033[35m", "\033[36m"};

/* left: what the terminal has still; the columns of it that were used. */
static unsigned print_cell(FILE *out, const char *text, enum table_color color, unsigned width, unsigned left,
                           bool last, bool in_color)
{
    unsigned room = width < left ? width : left, own = width_of(text);
    const char *cut = own > room && room > strlen(CUT) ? CUT : "";
    size_t length = own > room ? fitting(text, room - (unsigned)strlen(cut)) : strlen(text);
    bool colored = in_color && color != TABLE_PLAIN;
    fprintf(out, "%s%.*s%s%s", colored ? escapes[color] : "", (int)length, text, cut, colored ? "\033[0m" : "");
    for (; own < room && !last; own++)
        fputc(' ', out);
    return room;
}

static void print_line(const struct table *table, FILE *out, const struct table_form *form, const unsigned *widths,
                       size_t line)
{
    unsigned left = form->width ? form->width : (unsigned)-1;
    size_t first = line * table->n_columns, count = table->n_columns;
    while (count > 1 && !*table->texts[first + count - 1])
        count--; /* no spaces at the end of a line */
    for (size_t i = 0; i < count; i++) {
        size_t at = first + i;
        bool last = i + 1 == count;
        left -= print_cell(out, table->texts[at], table->colors[at], widths[i], left, last, form->color);
        for (unsigned gap = 0; gap < GAP && left > 0 && !last; gap++, left--)
            fputc(' ', out);
    }
    fputs(form->line_end, out);
}

bool table_print(const struct table *table, FILE *out, const struct table_form *form)
{
    unsigned *widths = table->failed ? NULL : measure(table, form->width);
    if (!widths)
        return false;
    bool all = form->height == 0 || table->n_lines <= form->height;
    size_t lines = all ? table->n_lines : form->height - 1;
    for (size_t line = 0; line < lines; line++)
        print_line(table, out, form, widths, line);
    if (!all)
        fprintf(out, "(%zu more)%s", table->n_lines - lines, form->line_end);
    free(widths);
    return true;
}

struct table_form table_form_of_stdout(void)
{
    struct table_form form = {.line_end = "\n"};
    struct winsize size;
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) {
        form.width = size.ws_col;
        form.height = size.ws_row;
    }
    return form;
}
