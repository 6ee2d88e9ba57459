package main

import (
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/reassembly"
)

// Stream of reassembly: both directions.
type connection struct{ directions [2]direction }

func (c *connection) Accept(*layers.TCP, gopacket.CaptureInfo, reassembly.TCPFlowDirection, reassembly.Sequence,
	*bool, reassembly.AssemblerContext) bool {
	return true
}

func (c *connection) ReassembledSG(sg reassembly.ScatterGather, _ reassembly.AssemblerContext) {
	dir, _, _, _ := sg.Info()
	length, _ := sg.Lengths()
	index := 0
	if dir == reassembly.TCPDirServerToClient {
		index = 1
	}
	c.directions[index].add(sg.Fetch(length))
}
func (c *connection) ReassemblyComplete(reassembly.AssemblerContext) bool { return true }

type twoWayFactory struct{}

func (twoWayFactory) New(net, transport gopacket.Flow, _ *layers.TCP, _ reassembly.AssemblerContext) reassembly.Stream {
	return &connection{[2]direction{
		{net: net, transport: transport}, {net: net.Reverse(), transport: transport.Reverse()}}}
}

type context gopacket.CaptureInfo

func (c *context) GetCaptureInfo() gopacket.CaptureInfo { return gopacket.CaptureInfo(*c) }

func newSink() sink {
	assembler := reassembly.NewAssembler(reassembly.NewStreamPool(twoWayFactory{}))
	assembler.MaxBufferedPagesPerConnection, assembler.MaxBufferedPagesTotal = *pages, *total
	return sink{func(net gopacket.Flow, tcp *layers.TCP, info gopacket.CaptureInfo) {
		c := context(info)
		assembler.AssembleWithContext(net, tcp, &c)
	}, assembler.FlushAll, assembler}
}
