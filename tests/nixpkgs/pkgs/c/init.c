/* The first process of the miniature NixOS: starts the services of a system, says READY=1 when they run, reaps, and ends
 * on SIGRTMIN+3, which asks systemd in a container to halt. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void notify(const char *text) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    int s;
    if (!path || strlen(path) >= sizeof to.sun_path) return;
    strcpy(to.sun_path, path);
    if (*path == '@') to.sun_path[0] = 0;
    s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sendto(s, text, strlen(text), 0, (void *)&to, sizeof to.sun_family + strlen(path) + (*path != '@')) < 0) perror("notify");
    close(s);
}

int main(int argc, char **argv) {
    sigset_t all, wait_for;
    char path[PATH_MAX];
    DIR *services;
    struct dirent *entry;
    int count = 0;
    if (argc != 2) return 2;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    mkdir("/run", 0755);
    unlink("/run/current-system");
    if (symlink(argv[1], "/run/current-system")) perror("/run/current-system");
    snprintf(path, sizeof path, "%s/services", argv[1]);
    for (services = opendir(path); services && (entry = readdir(services));) {
        if (entry->d_name[0] == '.') continue;
        if (fork() == 0) {
            sigprocmask(SIG_UNBLOCK, &all, NULL);
            snprintf(path, sizeof path, "%s/services/%s", argv[1], entry->d_name);
            setsid();
            execl(path, path, (char *)NULL);
            perror(path);
            _exit(127);
        }
        count++;
    }
    printf("%d services of %s started\n", count, argv[1]);
    fflush(stdout);
    notify("READY=1\nSTATUS=running");
    sigemptyset(&wait_for);
    sigaddset(&wait_for, SIGCHLD);
    sigaddset(&wait_for, SIGTERM);
    sigaddset(&wait_for, SIGRTMIN + 3);
    for (;;) {
        int signal = sigwaitinfo(&wait_for, NULL), status;
        if (signal == SIGRTMIN + 3 || signal == SIGTERM) {
            notify("STOPPING=1");
            printf("halted\n");
            fflush(stdout);
            kill(-1, SIGTERM);
            return 0;
        }
        while (waitpid(-1, &status, WNOHANG) > 0) {}
    }
}
