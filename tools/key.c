/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "key.h"

#include <errno.h>
#include <flockctl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "message.h"
#include "output.h"
#include "stamp.h"

#define FIELD "{key}"
#define PREFIX "sha256:"

static int out_of_memory(void)
{
    return fk_fail(-ENOMEM, "out of memory");
}

/* ---- what can't be meant ---- */

static int check_variables(const char *const *variables)
{
    for (; *variables; variables++)
        if (!**variables || strchr(*variables, '='))
            return fk_fail(-EINVAL, "--env \"%s\" isn't the name of a variable; give the name alone", *variables);
    return 0;
}

static int check_field(const char *output, bool has_key)
{
    const char *field = strstr(output, FIELD), *slash = field ? strchr(field, '/') : NULL;
    if (!field)
        return 0;
    if (strstr(field + 1, FIELD) || (slash && slash[strspn(slash, "/")] != '\0'))
        return fk_fail(-EINVAL, "the output %s has " FIELD " elsewhere than once in its last part; put it there",
                       output);
    if (!has_key)
        return fk_fail(
            -EINVAL, "the output %s has " FIELD " in its name but no key; give --key, --input, --env or --command-key",
            output);
    return 0;
}

static int check(const struct key_spec *spec, bool has_key)
{
    if (spec->text && !*spec->text)
        return fk_fail(-EINVAL, "--key is empty; give it a text, or leave it out");
    for (size_t i = 0; spec->inputs && spec->inputs[i]; i++)
        if (!*spec->inputs[i])
            return fk_fail(-EINVAL, "--input is empty; give it a path, or leave it out");
    int code = spec->variables ? check_variables(spec->variables) : 0;
    return code < 0 ? code : check_field(spec->output, has_key);
}

/* ---- inputs ---- */

static bool record_name(const struct key *key, char name[NAME_MAX + 1])
{
    char path[PATH_MAX];
    return fk_stamp_path(key->place.name, path) == 0 &&
           snprintf(name, NAME_MAX + 1, "%s" INPUTS_SUFFIX, path) <= NAME_MAX;
}

static void load_known(struct key *key)
{
    char name[NAME_MAX + 1];
    if (record_name(key, name))
        known_load(&key->inputs.known, key->place.directory, name);
}

/* Best effort: without it the inputs are read again. */
static void save_known(struct key *key)
{
    char name[NAME_MAX + 1];
    int code = -ENAMETOOLONG;
    if (record_name(key, name))
        code = known_save(&key->inputs.known, key->place.directory, name);
    if (code < 0)
        chat("what is known of the inputs of %s isn't kept: %s", key->spec->output, strerrordesc_np(-code));
}

static void except_lock_directory(struct inputs *inputs, const char *path)
{
    if (!path || stat(path, &inputs->lock_directory) < 0)
        inputs->lock_directory = (struct stat){0};
}

/* NAME, or what stands before and behind {key}. */
static int except_output(struct key *key)
{
    struct inputs *inputs = &key->inputs;
    key->name = strdup(key->place.name);
    if (!key->name)
        return out_of_memory();
    char *field = strstr(key->name, FIELD);
    if (field) {
        *field = '\0';
        inputs->after = field + strlen(FIELD);
    }
    inputs->before = key->name;
    if (fstat(key->place.directory, &inputs->output_directory) < 0)
        return fk_fail_errno(-errno, "can't look at the directory of %s", key->spec->output);
    return 0;
}

static int open_inputs(struct key *key)
{
    int code = fk_output_open(key->spec->output, &key->place);
    if (code == 0)
        code = except_output(key);
    if (code < 0)
        return code;
    except_lock_directory(&key->inputs, key->spec->lock_directory);
    load_known(key);
    key->digests = calloc(key->n_inputs, sizeof *key->digests);
    return key->digests ? 0 : out_of_memory();
}

/* Where OUTPUT lies in an input, it isn't counted; here nothing would be left. */
static int check_input(const struct key *key, const char *input)
{
    struct stat output, status;
    if (fstatat(key->place.directory, key->place.name, &output, 0) == 0 && stat(input, &status) == 0 &&
        output.st_dev == status.st_dev && output.st_ino == status.st_ino)
        return fk_fail(-EINVAL, "the input %s is the output itself; leave it out", input);
    return 0;
}

static int digest_inputs(struct key *key)
{
    const struct key_spec *spec = key->spec;
    int code = open_inputs(key);
    for (size_t i = 0; i < key->n_inputs && code == 0; i++) {
        code = check_input(key, spec->inputs[i]);
        if (code == 0)
            code = inputs_digest(&key->inputs, spec->inputs[i], key->digests[i]);
    }
    if (code == 0)
        save_known(key);
    return code;
}

/* ---- the digest of all ---- */

/* The last component: all of the path that counts. */
static void put_name(struct digest *digest, const char *path)
{
    size_t end = strlen(path), begin;
    while (end > 0 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    digest_field(digest, 'i', path + begin, end - begin);
}

static void put_variable(struct digest *digest, const char *name)
{
    const char *value = getenv(name);
    digest_text(digest, 'v', name);
    digest_text(digest, value ? '=' : '-', value ? value : "");
}

static void put_command(struct digest *digest, const char *const *command)
{
    for (; *command; command++)
        digest_text(digest, 'w', *command);
}

static void digest_all(const struct key *key, char text[DIGEST_TEXT_SIZE])
{
    const struct key_spec *spec = key->spec;
    unsigned char result[DIGEST_SIZE];
    struct digest digest;
    digest_begin(&digest);
    digest_text(&digest, 'F', "flockctl key 1");
    if (spec->text)
        digest_text(&digest, 'k', spec->text);
    for (size_t i = 0; i < key->n_inputs; i++) {
        put_name(&digest, spec->inputs[i]);
        digest_field(&digest, 't', key->digests[i], DIGEST_SIZE);
    }
    for (size_t i = 0; spec->variables && spec->variables[i]; i++)
        put_variable(&digest, spec->variables[i]);
    if (spec->command)
        put_command(&digest, spec->command);
    digest_end(&digest, result);
    digest_write(result, text);
}

/* ---- the key ---- */

static char *replace_field(const char *output, const char *digest)
{
    const char *field = strstr(output, FIELD);
    char *text = NULL;
    if (!field)
        return strdup(output);
    if (asprintf(&text, "%.*s%s%s", (int)(field - output), output, digest, field + strlen(FIELD)) < 0)
        return NULL;
    return text;
}

static char *write_text(const struct key_spec *spec, const char *digest)
{
    char *text = NULL;
    bool alone = !spec->inputs && !spec->variables && !spec->command;
    if (alone && strncmp(spec->text, PREFIX, strlen(PREFIX)) != 0)
        return strdup(spec->text);
    if (asprintf(&text, PREFIX "%s", digest) < 0)
        return NULL;
    return text;
}

int key_make(struct key *key, const struct key_spec *spec)
{
    char digest[DIGEST_TEXT_SIZE] = "";
    bool has_key = spec->text || spec->inputs || spec->variables || spec->command;
    *key = (struct key){.spec = spec, .place = {.directory = -1}};
    while (spec->inputs && spec->inputs[key->n_inputs])
        key->n_inputs++;
    int code = check(spec, has_key);
    if (code == 0 && key->n_inputs)
        code = digest_inputs(key);
    if (code < 0)
        return code;
    if (has_key) {
        digest_all(key, digest);
        key->text = write_text(spec, digest);
    }
    key->output = replace_field(spec->output, digest);
    return key->output && (key->text || !has_key) ? 0 : out_of_memory();
}

static int tell_change(const struct key *key, size_t number)
{
    const char *input = key->spec->inputs[number], *news = key->inputs.news;
    if (news)
        fk_fail(-ESTALE, "the input %s has changed", news);
    else
        fk_fail(-ESTALE, "the input %s has changed", input);
    return 0;
}

int key_check(struct key *key)
{
    free(key->inputs.news);
    key->inputs.news = NULL;
    for (size_t i = 0; i < key->n_inputs; i++) {
        unsigned char now[DIGEST_SIZE];
        int code = inputs_digest(&key->inputs, key->spec->inputs[i], now);
        if (code < 0)
            return code;
        if (memcmp(now, key->digests[i], DIGEST_SIZE) != 0)
            return tell_change(key, i);
    }
    if (key->n_inputs)
        save_known(key);
    return 1;
}

void key_clear(struct key *key)
{
    inputs_clear(&key->inputs);
    fk_output_close(&key->place);
    free(key->text);
    free(key->output);
    free(key->name);
    free(key->digests);
    *key = (struct key){.place = {.directory = -1}};
}
