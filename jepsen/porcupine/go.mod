module quorate/jepsen/porcupine

go 1.21

require (
	github.com/anishathalye/porcupine v1.1.0
	olympos.io/encoding/edn v0.0.0-20201019073823-d3554ca0b0a3
)
