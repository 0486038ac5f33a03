// gvisor: round trips through gVisor's network stack (Debian's package). Two stacks in one process are
// joined by a pair of sockets, and a connection over TCP between them carries one byte there and one
// back. Each stack has a dispatcher, a goroutine that waits in ppoll for the next packet: that is where
// gVisor gives its P away (rawfile.BlockingPoll), and what ../real.py takes out on request.
//
// Usage: gvisor COUNT [BUSY]. Does COUNT round trips beside BUSY goroutines that compute, and prints
// {"p50_ns", "p99_ns", "round_trips", "ops_per_s"}.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	nic  = 1
	port = 7
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func fine(err tcpip.Error) {
	if err != nil {
		panic(err)
	}
}

// one makes a stack that sends and receives by a socket.
func one(fd int, address tcpip.Address) *stack.Stack {
	made := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	link, err := fdbased.New(&fdbased.Options{FDs: []int{fd}, MTU: 1500, PacketDispatchMode: fdbased.RecvMMsg})
	must(err)
	fine(made.CreateNIC(nic, link))
	fine(made.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address.WithPrefix(),
	}, stack.AddressProperties{}))
	made.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	return made
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	must(err)
	if len(os.Args) > 2 {
		busy, err := strconv.Atoi(os.Args[2])
		must(err)
		for range busy {
			go func() {
				for {
				}
			}()
		}
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET, 0)
	must(err)
	const asked, answers = tcpip.Address("\x0a\x00\x00\x01"), tcpip.Address("\x0a\x00\x00\x02")
	asker, answerer := one(fds[0], asked), one(fds[1], answers)
	address := tcpip.FullAddress{NIC: nic, Addr: answers, Port: port}
	listener, err := gonet.ListenTCP(answerer, address, ipv4.ProtocolNumber)
	must(err)
	go func() {
		peer, err := listener.Accept()
		must(err)
		io.Copy(peer, peer)
	}()
	conn, err := gonet.DialContextTCP(context.Background(), asker, address, ipv4.ProtocolNumber)
	must(err)
	trips := make([]int64, count)
	b := make([]byte, 1)
	first := time.Now()
	for i := range trips {
		begin := time.Now()
		_, err := conn.Write(b)
		must(err)
		_, err = io.ReadFull(conn, b)
		must(err)
		trips[i] = int64(time.Since(begin))
	}
	took := time.Since(first).Seconds()
	slices.Sort(trips)
	text, err := json.Marshal(map[string]any{
		"p50_ns": trips[count/2], "p99_ns": trips[count*99/100],
		"round_trips": count, "ops_per_s": float64(count) / took,
	})
	must(err)
	fmt.Println(string(text))
}
