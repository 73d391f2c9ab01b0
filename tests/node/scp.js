// A DICOM node by dcmjs-dimse: `node scp.js PORT JSON`. It keeps what is stored in `folder`, finds
// it, sends it to `destinations` (C-MOVE) and over the association that asks (C-GET).
const fs = require('fs');
const path = require('path');
const dimse = require('dcmjs-dimse');
const { Client, Dataset, Scp, Server } = dimse;
const { CStoreRequest } = dimse.requests;
const { CEchoResponse, CFindResponse, CMoveResponse, CGetResponse, CStoreResponse } = dimse.responses;
const { PresentationContextResult } = dimse.constants;

dimse.log.setLevel('silent');

const [, , port, text] = process.argv;
const { folder, destinations } = JSON.parse(text);
const SUCCESS = 0x0000;
const PENDING = 0xff00;
const SYNTAXES = ['1.2.840.10008.1.2.1', '1.2.840.10008.1.2'];

const stored = () =>
  fs.readdirSync(folder).sort().map((name) => Dataset.fromFile(path.join(folder, name)));

// The data sets that fit the unique keys of a request.
function fitting(asked) {
  const keys = ['StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID'].filter((k) => asked.getElement(k));
  const wanted = (k) => [].concat(asked.getElement(k)).flatMap((v) => `${v}`.split('\\'));
  return stored().filter((one) => keys.every((k) => wanted(k).includes(one.getElement(k))));
}

class Node extends Scp {
  associationRequested(association) {
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      const syntax = context.getTransferSyntaxUids().find((uid) => SYNTAXES.includes(uid));
      if (syntax) context.setResult(PresentationContextResult.Accept, syntax);
      else context.setResult(PresentationContextResult.RejectTransferSyntaxesNotSupported);
    }
    this.sendAssociationAccept();
  }

  cEchoRequest(request, callback) {
    callback(done(CEchoResponse, request));
  }

  cStoreRequest(request, callback) {
    const dataset = request.getDataset();
    dataset.toFile(path.join(folder, `${dataset.getElement('SOPInstanceUID')}.dcm`));
    callback(done(CStoreResponse, request));
  }

  cFindRequest(request, callback) {
    const asked = request.getDataset();
    const level = asked.getElement('QueryRetrieveLevel');
    const unique = { STUDY: 'StudyInstanceUID', SERIES: 'SeriesInstanceUID', IMAGE: 'SOPInstanceUID' }[level];
    const seen = new Map();
    for (const one of fitting(asked)) seen.set(one.getElement(unique), one);
    const responses = [...seen.values()].map((one) => {
      const elements = { QueryRetrieveLevel: level };
      for (const key of ['StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID', 'SOPClassUID']) {
        elements[key] = one.getElement(key);
      }
      const response = CFindResponse.fromRequest(request);
      response.setDataset(new Dataset(elements));
      response.setStatus(PENDING);
      return response;
    });
    callback([...responses, done(CFindResponse, request)]);
  }

  cMoveRequest(request, callback) {
    const found = fitting(request.getDataset());
    const to = destinations[`${request.getCommandDataset().getElement('MoveDestination')}`.trim()];
    if (!to) {
      const response = CMoveResponse.fromRequest(request);
      response.setStatus(0xa801);
      callback([response]);
      return;
    }
    const client = new Client();
    let completed = 0;
    for (const one of found) {
      const sub = new CStoreRequest(one);
      sub.on('response', (answer) => (completed += answer.getStatus() === SUCCESS ? 1 : 0));
      client.addRequest(sub);
    }
    client.on('closed', () => {
      const response = done(CMoveResponse, request);
      response.setCompleted(completed);
      response.setFailures(found.length - completed);
      if (completed < found.length) response.setStatus(0xb000);
      callback([response]);
    });
    client.on('networkError', () => {});
    client.send('127.0.0.1', to, 'DCMJS', 'AXIOM');
  }

  cGetRequest(request, callback) {
    const found = fitting(request.getDataset());
    let answered = 0;
    const finish = () => {
      const response = done(CGetResponse, request);
      response.setCompleted(answered);
      callback([response]);
    };
    const subOperations = found.map((one) => new CStoreRequest(one));
    for (const one of subOperations) {
      one.on('response', () => {
        answered += 1;
        if (answered === found.length) finish();
      });
    }
    if (found.length) this.sendRequests(subOperations);
    else finish();
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

function done(kind, request) {
  const response = kind.fromRequest(request);
  response.setStatus(SUCCESS);
  return response;
}

const server = new Server(Node);
server.on('networkError', () => {});
server.listen(Number(port));
