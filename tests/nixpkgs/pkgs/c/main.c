#include <stdio.h>
#include "greet.h"
#ifndef NAME
#define NAME "you"
#endif

int main(int argc, char **argv) {
    puts(greet(argc > 1 ? argv[1] : NAME));
    return 0;
}
