import com.pixelmed.validate.DicomSRValidator;
import java.io.BufferedReader;
import java.io.InputStreamReader;

/**
 * Validates one report after the other: a path on standard input, findings and "end" on standard
 * output. Its own command line takes one file and needs seconds to read its rules each time.
 */
public class ValidateReports {
    public static void main(String[] none) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        BufferedReader paths = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String path = paths.readLine(); path != null; path = paths.readLine()) {
            String findings;
            try {
                findings = validator.validate(path);
            } catch (Exception failure) {
                findings = "Error: not validated: " + failure + "\n";
            }
            System.out.print(findings);
            System.out.println("end");
        }
    }
}
