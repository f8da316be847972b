/* Looks names up with c-ares. See lookup.go for the arguments and for what is printed. */
#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>

static void addresses(void *unused, int status, int timeouts, struct ares_addrinfo *all)
{
	char text[INET6_ADDRSTRLEN];

	(void)unused, (void)timeouts;
	if (status != ARES_SUCCESS) {
		printf("error %s\n", ares_strerror(status));
		return;
	}
	for (struct ares_addrinfo_node *a = all->nodes; a; a = a->ai_next) {
		const void *at = a->ai_family == AF_INET ? (const void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
							 : (const void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
		printf("%s\n", ares_inet_ntop(a->ai_family, at, text, sizeof text));
	}
	ares_freeaddrinfo(all);
}

static void services(void *unused, int status, int timeouts, unsigned char *answer, int length)
{
	struct ares_srv_reply *all = NULL;

	(void)unused, (void)timeouts;
	if (status == ARES_SUCCESS)
		status = ares_parse_srv_reply(answer, length, &all);
	if (status != ARES_SUCCESS) {
		printf("error %s\n", ares_strerror(status));
		return;
	}
	for (struct ares_srv_reply *s = all; s; s = s->next)
		printf("%s:%u\n", s->host, s->port);
	ares_free_data(all);
}

static int look(ares_channel channel, const char *what, const char *name)
{
	struct ares_addrinfo_hints hints = {.ai_socktype = SOCK_STREAM};

	if (!strcmp(what, "srv")) {
		ares_search(channel, name, ns_c_in, ns_t_srv, services, NULL);
	} else {
		hints.ai_family = !strcmp(what, "a") ? AF_INET : !strcmp(what, "aaaa") ? AF_INET6 : AF_UNSPEC;
		ares_getaddrinfo(channel, name, NULL, &hints, addresses, NULL);
	}
	for (;;) {
		fd_set readers, writers;
		struct timeval left;

		FD_ZERO(&readers);
		FD_ZERO(&writers);
		int n = ares_fds(channel, &readers, &writers);
		if (n == 0)
			return 0;
		if (select(n, &readers, &writers, NULL, ares_timeout(channel, NULL, &left)) < 0)
			return 1;
		ares_process(channel, &readers, &writers);
	}
}

int main(int argc, char **argv)
{
	ares_channel channel;

	if (argc < 3 || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS || ares_init(&channel) != ARES_SUCCESS)
		return 2;
	int err = look(channel, argv[1], argv[2]);
	for (int i = 3; i < argc && !err; i++) {
		long ms = atol(argv[i]);
		struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
		nanosleep(&pause, NULL);
		printf("again\n");
		err = look(channel, argv[1], argv[2]);
	}
	ares_destroy(channel);
	ares_library_cleanup();
	return err;
}
