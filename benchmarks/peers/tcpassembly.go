package main

import (
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/tcpassembly"
)

// Stream of tcpassembly: one direction.
func (d *direction) Reassembled(parts []tcpassembly.Reassembly) {
	for i := range parts {
		d.add(parts[i].Bytes)
	}
}
func (d *direction) ReassemblyComplete() {}

type oneWayFactory struct{}

func (oneWayFactory) New(net, transport gopacket.Flow) tcpassembly.Stream {
	return &direction{net: net, transport: transport}
}

func newSink() sink {
	assembler := tcpassembly.NewAssembler(tcpassembly.NewStreamPool(oneWayFactory{}))
	assembler.MaxBufferedPagesPerConnection, assembler.MaxBufferedPagesTotal = *pages, *total
	return sink{func(net gopacket.Flow, tcp *layers.TCP, info gopacket.CaptureInfo) {
		assembler.AssembleWithTimestamp(net, tcp, info.Timestamp)
	}, assembler.FlushAll, assembler}
}
