// late: makes its blocking calls in a plugin that it opens when it runs (-buildmode=plugin).
//
// Usage: late PLUGIN; it ends when its input does.
package main

import (
	"os"
	"plugin"
)

func main() {
	opened, err := plugin.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	block, err := opened.Lookup("Block")
	if err != nil {
		panic(err)
	}
	go func() {
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	for {
		block.(func())()
	}
}
