/* The least that a program on libnetfilter_queue can do: accept every packet of one queue, one by one. */
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <libnetfilter_queue/libnetfilter_queue.h>

static int accept_packet(struct nfq_q_handle *queue, struct nfgenmsg *message, struct nfq_data *data, void *nothing)
{
	struct nfqnl_msg_packet_hdr *header = nfq_get_msg_packet_hdr(data);

	(void)message;
	(void)nothing;
	return header ? nfq_set_verdict(queue, ntohl(header->packet_id), NF_ACCEPT, 0, NULL) : -1;
}

int main(int argc, char **argv)
{
	static char buffer[0xffff + 4096];
	struct nfq_handle *handle = nfq_open();
	struct nfq_q_handle *queue;
	ssize_t length;

	if (argc != 2 || !handle)
		return 1;
	queue = nfq_create_queue(handle, (uint16_t)atoi(argv[1]), accept_packet, NULL);
	if (!queue || nfq_set_mode(queue, NFQNL_COPY_PACKET, 0xffff) < 0)
		return 1;
	puts("ready");
	fflush(stdout);
	while ((length = recv(nfq_fd(handle), buffer, sizeof buffer, 0)) >= 0)
		nfq_handle_packet(handle, buffer, (int)length);
	return 1;
}
