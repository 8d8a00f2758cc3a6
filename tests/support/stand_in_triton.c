/* A stand-in for tritonserver in a container of its own: the image is this one static program.
 *
 * It listens on port 8001 and obeys one line for each connection, so that a test can look at the
 * container from inside: read PATH · write PATH · connect ADDRESS PORT · resolve · ids · hog BYTES
 * · child-hog BYTES · print TEXT · exit CODE · signal NUMBER · mounts. With IGNORE_SIGTERM in its
 * environment it does not end when told to.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void told(int number) {
    (void)number;
    if (getenv("IGNORE_SIGTERM")) return;
    static const char text[] = "told to end\n";
    ssize_t written = write(1, text, sizeof text - 1);
    (void)written;
    _exit(0);
}

static void hog(size_t bytes) {
    volatile char *memory = malloc(bytes);
    if (!memory) return;
    for (size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
}

static void copy_file(const char *path, int to) {
    char buffer[65536];
    ssize_t got;
    int file = open(path, O_RDONLY);
    if (file < 0) { dprintf(to, "error %s", strerror(errno)); return; }
    while ((got = read(file, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, got) != got) break;
    close(file);
}

static void dial(const char *address, int port, int to) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval limit = {.tv_sec = 2};
    int link = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, address, &there.sin_addr);
    setsockopt(link, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(link, (struct sockaddr *)&there, sizeof there) == 0) dprintf(to, "connected");
    else dprintf(to, "error %s", strerror(errno));
    close(link);
}

static void obey(char *line, int to) {
    char *word = strtok(line, " "), *one = strtok(NULL, " "), *two = strtok(NULL, "");
    if (!word) return;
    if (!strcmp(word, "read") && one) copy_file(one, to);
    else if (!strcmp(word, "write") && one) {
        int file = open(one, O_WRONLY | O_CREAT | O_TRUNC, 0700);
        if (file < 0 || write(file, "x", 1) != 1) dprintf(to, "error %s", strerror(errno));
        else dprintf(to, "written");
        if (file >= 0) close(file);
    } else if (!strcmp(word, "connect") && one && two) dial(one, atoi(two), to);
    else if (!strcmp(word, "ids")) dprintf(to, "%d %d", getuid(), getgid());
    else if (!strcmp(word, "hog") && one) { hog(strtoul(one, NULL, 10)); dprintf(to, "held"); }
    else if (!strcmp(word, "child-hog") && one) {
        pid_t child = fork();
        if (!child) { hog(strtoul(one, NULL, 10)); _exit(0); }
        int status = 0;
        waitpid(child, &status, 0);
        dprintf(to, "child %d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    } else if (!strcmp(word, "print") && one) { printf("%s\n", one); dprintf(to, "printed"); }
    else if (!strcmp(word, "exit") && one) exit(atoi(one));
    else if (!strcmp(word, "signal") && one) {
        /* The first process of a container is spared signals that it has no handler for. */
        if (!fork()) { kill(getpid(), atoi(one)); _exit(0); }
        wait(NULL);
    } else dprintf(to, "error unknown word");
}

int main(int count, char **words) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(8001)};
    int on = 1, ear = socket(AF_INET, SOCK_STREAM, 0);
    struct sigaction action = {.sa_handler = told};
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    for (int at = 1; at < count; at++) printf("flag %s\n", words[at]);
    setsockopt(ear, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(ear, (struct sockaddr *)&here, sizeof here) || listen(ear, 16)) return 1;
    printf("listening\n");
    for (;;) {
        char line[512];
        int link = accept(ear, NULL, NULL);
        if (link < 0) continue;
        ssize_t got = read(link, line, sizeof line - 1);
        if (got > 0) {
            line[got] = 0;
            line[strcspn(line, "\n")] = 0;
            obey(line, link);
        }
        close(link);
    }
}
