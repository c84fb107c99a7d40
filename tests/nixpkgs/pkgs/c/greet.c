#include <stdio.h>
#include "greet.h"

const char *greet(const char *name) {
    static char text[256];
    snprintf(text, sizeof text, "Hello, %s!", name);
    return text;
}
