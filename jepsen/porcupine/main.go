// Reads a register history of the chaos suite (EDN, one map a line) and asks porcupine whether it is linearizable: a
// second opinion, by code that shares nothing with the suite's own checker.
//
// usage: porcupine HISTORY.edn [PICTURE.html]
// Exit code 0: linearizable; 1: not; 2: not decided within a minute, or the history cannot be read.
package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
	"olympos.io/encoding/edn"
)

type op struct {
	Index   int64       `edn:"index"`
	Type    edn.Keyword `edn:"type"`
	Process interface{} `edn:"process"`
	F       edn.Keyword `edn:"f"`
	Value   interface{} `edn:"value"`
}

type call struct {
	write bool
	key   int64
	value interface{} // nil: nothing is there
}

// One register for each key; what is written last is read.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int64][]porcupine.Operation{}
		for _, operation := range history {
			key := operation.Input.(call).key
			byKey[key] = append(byKey[key], operation)
		}
		keys := make([]int64, 0, len(byKey))
		for key := range byKey {
			keys = append(keys, key)
		}
		sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
		parts := make([][]porcupine.Operation, 0, len(keys))
		for _, key := range keys {
			parts = append(parts, byKey[key])
		}
		return parts
	},
	Init: func() interface{} { return nil },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		in := input.(call)
		if in.write {
			return true, in.value
		}
		return output == state, state
	},
	DescribeOperation: func(input, output interface{}) string {
		in := input.(call)
		if in.write {
			return fmt.Sprintf("write(%d, %v)", in.key, in.value)
		}
		return fmt.Sprintf("read(%d) = %v", in.key, output)
	},
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: porcupine HISTORY.edn [PICTURE.html]")
		os.Exit(2)
	}
	history, err := read(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	verdict, info := porcupine.CheckOperationsVerbose(model, history, time.Minute)
	fmt.Printf("%s: %d operations, %s\n", os.Args[1], len(history), verdict)
	if len(os.Args) > 2 {
		if err := porcupine.VisualizePath(model, info, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	switch verdict {
	case porcupine.Ok:
	case porcupine.Illegal:
		os.Exit(1)
	default:
		os.Exit(2)
	}
}

// Failed operations did not happen and are left out; those of unknown outcome may take effect until the end of time, and
// a read of unknown outcome says nothing.
func read(path string) ([]porcupine.Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	open := map[int64]op{}
	var history []porcupine.Operation
	add := func(process int64, begin op, value interface{}, until int64) error {
		pair, ok := begin.Value.([]interface{})
		if !ok || len(pair) != 2 {
			return fmt.Errorf("%s: index %d: not a register: %v", path, begin.Index, begin.Value)
		}
		in := call{write: begin.F == "write", key: pair[0].(int64), value: pair[1]}
		history = append(history, porcupine.Operation{
			ClientId: int(process % 1000), Input: in, Call: begin.Index, Output: value, Return: until,
		})
		return nil
	}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var line op
		if err := edn.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
		}
		process, ok := line.Process.(int64)
		if !ok {
			continue // the nemesis
		}
		switch line.Type {
		case "invoke":
			open[process] = line
		case "ok":
			if err := add(process, open[process], line.Value.([]interface{})[1], line.Index); err != nil {
				return nil, err
			}
			delete(open, process)
		case "fail":
			delete(open, process)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	for process, begin := range open {
		if begin.F == "write" {
			if err := add(process, begin, nil, math.MaxInt64); err != nil {
				return nil, err
			}
		}
	}
	return history, nil
}
