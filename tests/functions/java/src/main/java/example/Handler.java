package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import com.amazonaws.services.lambda.runtime.serialization.factories.JacksonFactory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The function in Java, with the client of aws-lambda-java-runtime-interface-client. */
public class Handler implements RequestHandler<Map<String, Object>, Object> {
    /** What JSON cannot hold. */
    public static class Unmarshalable {
        public String getWhole() {
            throw new UnsupportedOperationException("no JSON");
        }
    }

    @Override
    public Object handleRequest(Map<String, Object> event, Context context) {
        System.out.println("java call " + context.getAwsRequestId());
        try {
            return handle(event, context);
        } catch (IOException | InterruptedException error) {
            throw new RuntimeException(error);
        }
    }

    private Object handle(Map<String, Object> event, Context context) throws IOException, InterruptedException {
        List<Object> failed = new ArrayList<>();
        StringBuilder lines = new StringBuilder();
        for (Object record : (List<?>) event.get("Records")) {
            Map<?, ?> change = (Map<?, ?>) ((Map<?, ?>) record).get("dynamodb");
            Map<?, ?> image = (Map<?, ?>) change.get("NewImage");
            switch (value(image, "do", "S", "")) {
                case "fail":
                    throw new IllegalArgumentException("no such order");
                case "answer":
                    return JacksonFactory.getInstance().getSerializer(Object.class).fromJson(value(image, "answer", "S", ""));
                case "large":
                    return "x".repeat(6_300_000);
                case "unmarshalable":
                    return new Unmarshalable();
                case "hang":
                    Thread.sleep(3_600_000);
                    break;
                case "child":
                    Process child = new ProcessBuilder("sleep", "3600").start();
                    Files.writeString(Path.of(value(image, "file", "S", "")), String.valueOf(child.pid()));
                    Thread.sleep(3_600_000);
                    break;
                case "exit":
                    Runtime.getRuntime().halt(3);
                    break;
                case "kill":
                    new ProcessBuilder("kill", "-KILL", String.valueOf(ProcessHandle.current().pid())).start();
                    Thread.sleep(3_600_000);
                    break;
                case "print":
                    System.out.println("to stdout");
                    System.err.println("to stderr");
                    return null;
                case "context":
                    String known = "[\"" + context.getAwsRequestId() + "\", " + context.getRemainingTimeInMillis() + ", \""
                        + context.getInvokedFunctionArn() + "\"]";
                    Files.writeString(Path.of(value(image, "file", "S", "")), known);
                    return null;
                case "partial":
                    failed.add(Map.of("itemIdentifier", change.get("SequenceNumber")));
                    continue;
                default:
            }
            String key = value((Map<?, ?>) change.get("Keys"), "pk", "S", "");
            lines.append("[\"" + key + "\", " + value(image, "version", "N", "0") + "]\n");
        }
        String journal = System.getenv("JOURNAL");
        if (journal != null) {
            Files.writeString(Path.of(journal), lines, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        }
        return Map.of("batchItemFailures", failed);
    }

    private static String value(Map<?, ?> image, String name, String type, String otherwise) {
        Map<?, ?> found = image == null ? null : (Map<?, ?>) image.get(name);
        return found == null ? otherwise : (String) found.get(type);
    }
}
