// For `node --require`: every server of the process listens on 127.0.0.1 only, whatever it asks for, and on a port that
// the system chooses, so that nobody can take it before. Each is reported on file descriptor REPORT_FD as
// "<port it asked for> <port it has>".
'use strict'
const fs = require('fs')
const net = require('net')

const report = Number(process.env.REPORT_FD)
const listen = net.Server.prototype.listen

net.Server.prototype.listen = function (asked, ...rest) {
  if (!/^\d+$/.test(asked)) throw new Error(`this server listens on something that is not a port: ${asked}`)
  this.once('listening', () => fs.writeSync(report, `${asked} ${this.address().port}\n`))
  return listen.call(this, { host: '127.0.0.1', port: 0 }, rest.find((each) => typeof each === 'function'))
}
