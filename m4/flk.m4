# SPDX-License-Identifier: LGPL-2.1-or-later

# FLK_CHECK_CFLAGS(VARIABLE, FLAGS): append to VARIABLE each of FLAGS that the compiler takes.
# With -Werror, since clang only warns of a flag it doesn't know.
AC_DEFUN([FLK_CHECK_CFLAGS],
[m4_foreach_w([flk_flag], [$2],
[AC_CACHE_CHECK([whether $CC takes flk_flag], [AS_TR_SH([flk_cv_cflag_]flk_flag)],
    [flk_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS -Werror flk_flag"
    AC_COMPILE_IFELSE([AC_LANG_SOURCE([extern int flk_conftest; int flk_conftest;])],
        [AS_TR_SH([flk_cv_cflag_]flk_flag)=yes], [AS_TR_SH([flk_cv_cflag_]flk_flag)=no])
    CFLAGS=$flk_save_CFLAGS])
AS_IF([test "x$AS_TR_SH([flk_cv_cflag_]flk_flag)" = xyes], [$1="$$1 flk_flag"])
])])

# FLK_SANITIZE(LIST): append the flags for a list of sanitizers to FLK_CFLAGS and FLK_LDFLAGS, or stop.
AC_DEFUN([FLK_SANITIZE],
[AS_IF([test "x$1" != xno],
    [AS_CASE(["x$1"], [x|xyes], 
        [AC_MSG_ERROR([--enable-sanitize wants a list: address, undefined, thread, or several with commas])])
    # Two spaces, so that a pattern finds two neighbours as well.
    flk_sanitizers=`AS_ECHO(["$1"]) | $SED 's/,/  /g'`
    AS_CASE([" $flk_sanitizers "],
        [*" thread "*" address "*|*" address "*" thread "*],
        [AC_MSG_ERROR([--enable-sanitize: thread and address exclude each other; build twice])])
    for flk_sanitizer in $flk_sanitizers; do
        AS_CASE([$flk_sanitizer], [address|undefined|thread], [],
            [AC_MSG_ERROR([--enable-sanitize=$1: not one of address, undefined, thread, or several with commas])])
    done
    flk_sanitize="-fsanitize=$1 -fno-omit-frame-pointer"
    # What undefined behaviour prints, nobody reads in a test that passes.
    AS_CASE([" $flk_sanitizers "], [*" undefined "*], [flk_sanitize="$flk_sanitize -fno-sanitize-recover=undefined"])
    AC_MSG_CHECKING([whether $flk_sanitize works])
    flk_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS $flk_sanitize"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AC_MSG_RESULT([yes])],
        [AC_MSG_RESULT([no])
        AC_MSG_ERROR([--enable-sanitize=$1: $CC can't link with it; is its runtime library installed?])])
    CFLAGS=$flk_save_CFLAGS
    FLK_CFLAGS="$FLK_CFLAGS $flk_sanitize -DFK_SANITIZED"
    FLK_LDFLAGS="$FLK_LDFLAGS $flk_sanitize"])
])

# FLK_STATIC_URCU: set flk_cv_static_urcu to whether the archives in URCU_STATIC_LIBS can be linked.
AC_DEFUN([FLK_STATIC_URCU],
[flk_urcu_dirs=`$PKG_CONFIG --libs-only-L liburcu-bp 2>/dev/null`
URCU_STATIC_LIBS="$flk_urcu_dirs -l:liburcu-bp.a -l:liburcu-common.a"
AC_CACHE_CHECK([whether liburcu's archives can be linked], [flk_cv_static_urcu],
    [flk_save_CFLAGS=$CFLAGS flk_save_LIBS=$LIBS
    CFLAGS="$CFLAGS $URCU_CFLAGS" LIBS="$URCU_STATIC_LIBS $LIBS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <urcu/urcu-bp.h>]], [[urcu_bp_synchronize_rcu();]])],
        [flk_cv_static_urcu=yes], [flk_cv_static_urcu=no])
    CFLAGS=$flk_save_CFLAGS LIBS=$flk_save_LIBS])
])

# FLK_STATIC_CRYPTO: set flk_cv_static_crypto to whether the archive in CRYPTO_STATIC_LIBS can be linked.
AC_DEFUN([FLK_STATIC_CRYPTO],
[flk_crypto_dirs=`$PKG_CONFIG --libs-only-L libcrypto 2>/dev/null`
CRYPTO_STATIC_LIBS="$flk_crypto_dirs -l:libcrypto.a"
AC_CACHE_CHECK([whether libcrypto's archive can be linked], [flk_cv_static_crypto],
    [flk_save_CFLAGS=$CFLAGS flk_save_LIBS=$LIBS
    CFLAGS="$CFLAGS $CRYPTO_CFLAGS" LIBS="$CRYPTO_STATIC_LIBS $LIBS"
    FLK_LINK_SHA256([flk_cv_static_crypto])
    CFLAGS=$flk_save_CFLAGS LIBS=$flk_save_LIBS])
])

# FLK_LINK_SHA256(VARIABLE): set it to whether a program with libcrypto's SHA-256 can be linked.
AC_DEFUN([FLK_LINK_SHA256],
[AC_LINK_IFELSE([AC_LANG_PROGRAM([[#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>]], [[SHA256_CTX context; SHA256_Init(&context);]])], [$1=yes], [$1=no])
])

# FLK_STATIC_TOOL: set flk_cv_static_tool to whether a program of ours can be linked with -static. No sanitizer's can.
AC_DEFUN([FLK_STATIC_TOOL],
[AC_CACHE_CHECK([whether programs can be linked with -static], [flk_cv_static_tool],
    [flk_save_CFLAGS=$CFLAGS flk_save_LIBS=$LIBS flk_save_LDFLAGS=$LDFLAGS
    CFLAGS="$CFLAGS $URCU_CFLAGS $CRYPTO_CFLAGS" LDFLAGS="$LDFLAGS $FLK_LDFLAGS -static"
    LIBS="$URCU_TOOL_LIBS $CRYPTO_TOOL_LIBS $LIBS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <urcu/urcu-bp.h>]], [[urcu_bp_synchronize_rcu();]])],
        [FLK_LINK_SHA256([flk_cv_static_tool])], [flk_cv_static_tool=no])
    CFLAGS=$flk_save_CFLAGS LIBS=$flk_save_LIBS LDFLAGS=$flk_save_LDFLAGS])
])

# FLK_VERSION_SCRIPT: set the condition HAVE_VERSION_SCRIPT.
AC_DEFUN([FLK_VERSION_SCRIPT],
[AC_CACHE_CHECK([whether the linker takes --version-script], [flk_cv_version_script],
    [AS_ECHO(['FLK { global: flk_conftest; local: *; };']) >conftest.map
    flk_save_CFLAGS=$CFLAGS flk_save_LDFLAGS=$LDFLAGS
    CFLAGS="$CFLAGS -fPIC" LDFLAGS="$LDFLAGS -shared -Wl,--version-script=conftest.map"
    AC_LINK_IFELSE([AC_LANG_SOURCE([int flk_conftest;])], [flk_cv_version_script=yes], [flk_cv_version_script=no])
    CFLAGS=$flk_save_CFLAGS LDFLAGS=$flk_save_LDFLAGS
    rm -f conftest.map])
AM_CONDITIONAL([HAVE_VERSION_SCRIPT], [test "x$flk_cv_version_script" = xyes])
])

# FLK_EXPAND(VARIABLE, DIRECTORY): DIRECTORY with the ${prefix} and so on in it replaced, for people to read.
AC_DEFUN([FLK_EXPAND],
[$1=`test "x$prefix" != xNONE || prefix=$ac_default_prefix
    test "x$exec_prefix" != xNONE || exec_prefix=$prefix
    eval flk_dir="$2"
    eval echo "$flk_dir"`
])
