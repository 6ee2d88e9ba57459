// A gopacket engine over one capture file, for benchmarks/speed.py and benchmarks/story.py. Built with reassembly.go or tcpassembly.go, not
// both: the two packages define the same command line flags.
//
//	PROGRAM -decode lazy|parser [-hash] [-pages 500 -total 100000] [-sample 10000] FILE
//
// Prints one JSON object: packets, bytes, seconds, peak_kib, start_kib and, with -hash, the digest of workloads.py.
// With -sample, also the resident size and the pages in use and allocated after so many packets each, after FlushAll,
// and after debug.FreeOSMemory.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash"
	"io"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

var (
	decode  = flag.String("decode", "lazy", "lazy or parser")
	hashing = flag.Bool("hash", false, "digest what is delivered")
	pages   = flag.Int("pages", 500, "MaxBufferedPagesPerConnection, 0 = unlimited")
	total   = flag.Int("total", 100000, "MaxBufferedPagesTotal, 0 = unlimited")
	every   = flag.Int("sample", 0, "packets between looks at the memory, 0 = none")

	delivered int64
	hashes    = map[string]hash.Hash{}
)

func directionKey(net, transport gopacket.Flow) string {
	return string(net.Src().Raw()) + string(net.Dst().Raw()) +
		string(transport.Src().Raw()) + string(transport.Dst().Raw())
}

// direction takes the bytes of one direction.
type direction struct {
	net, transport gopacket.Flow
	digest         hash.Hash
}

func (d *direction) add(data []byte) {
	delivered += int64(len(data))
	if !*hashing || len(data) == 0 {
		return
	}
	if d.digest == nil {
		key := directionKey(d.net, d.transport)
		if hashes[key] == nil {
			hashes[key] = sha256.New()
		}
		d.digest = hashes[key]
	}
	d.digest.Write(data)
}

type sink struct {
	assemble  func(net gopacket.Flow, tcp *layers.TCP, info gopacket.CaptureInfo)
	flush     func() int
	assembler interface{}
}

type sample struct {
	Packets   int   `json:"packets"`
	RssKiB    int   `json:"rss_kib"`
	Used      int64 `json:"pages_used"`
	Allocated int64 `json:"pages_allocated"`
}

var samples []sample

// look reads the page cache's own counters, which are not exported.
func (out sink) look(packets int) {
	cache := reflect.ValueOf(out.assembler).Elem().FieldByName("pc").Elem()
	samples = append(samples, sample{packets, status("VmRSS"),
		cache.FieldByName("used").Int(), cache.FieldByName("size").Int()})
}

func runLazy(reader *pcapgo.Reader, out sink) (packets int) {
	source := gopacket.NewPacketSource(reader, reader.LinkType())
	source.DecodeOptions = gopacket.DecodeOptions{Lazy: true, NoCopy: true}
	for {
		packet, err := source.NextPacket()
		if err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		packets++
		if *every > 0 && packets%*every == 0 {
			out.look(packets)
		}
		if tcp, ok := packet.TransportLayer().(*layers.TCP); ok {
			out.assemble(packet.NetworkLayer().NetworkFlow(), tcp, packet.Metadata().CaptureInfo)
		}
	}
}

func runParser(reader *pcapgo.Reader, out sink) (packets int) {
	var eth layers.Ethernet
	var tag layers.Dot1Q
	var ip4 layers.IPv4
	var ip6 layers.IPv6
	var tcp layers.TCP
	var content gopacket.Payload
	parser := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &eth, &tag, &ip4, &ip6, &tcp, &content)
	parser.IgnoreUnsupported = true // what is inside TCP: some ports have a layer of their own
	found := []gopacket.LayerType{}
	for {
		data, info, err := reader.ZeroCopyReadPacketData()
		if err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		packets++
		if *every > 0 && packets%*every == 0 {
			out.look(packets)
		}
		if parser.DecodeLayers(data, &found) != nil {
			continue
		}
		var net gopacket.Flow
		for _, layer := range found {
			switch layer {
			case layers.LayerTypeIPv4:
				net = ip4.NetworkFlow()
			case layers.LayerTypeIPv6:
				net = ip6.NetworkFlow()
			case layers.LayerTypeTCP:
				out.assemble(net, &tcp, info)
			}
		}
	}
}

func status(name string) (kib int) {
	text, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, name+":") {
			fmt.Sscanf(strings.TrimSpace(line[len(name)+1:]), "%d", &kib)
		}
	}
	return
}

func digest() string {
	var all [32]byte
	for key, found := range hashes {
		one := sha256.Sum256(append([]byte(key), found.Sum(nil)...))
		for i := range all {
			all[i] ^= one[i]
		}
	}
	return hex.EncodeToString(all[:])
}

func main() {
	flag.Parse()
	startKiB := status("VmRSS")
	started := time.Now()
	file, err := os.Open(flag.Arg(0))
	if err != nil {
		panic(err)
	}
	reader, err := pcapgo.NewReader(bufio.NewReaderSize(file, 256<<10))
	if err != nil {
		panic(err)
	}
	out := newSink()
	run := runLazy
	if *decode == "parser" {
		run = runParser
	}
	packets := run(reader, out)
	if *every > 0 {
		out.look(packets)
	}
	out.flush()
	if *every > 0 {
		out.look(packets)
		debug.FreeOSMemory()
		out.look(packets)
	}
	answer := map[string]interface{}{"packets": packets, "bytes": delivered,
		"seconds": time.Since(started).Seconds(), "start_kib": startKiB, "peak_kib": status("VmHWM")}
	if *hashing {
		answer["digest"] = digest()
	}
	if *every > 0 {
		answer["samples"] = samples
	}
	json.NewEncoder(os.Stdout).Encode(answer)
}
